"""Xenstore: the tree of settings that a toolstack and its guests share (docs/misc/xenstore.txt in the Xen tree)."""
