"""The embedded CPU emulator: Unicorn's library as a full-system x86-64 machine."""
