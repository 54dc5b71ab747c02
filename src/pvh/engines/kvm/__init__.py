"""KVM through /dev/kvm, straight from Python."""
