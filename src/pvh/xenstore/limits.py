"""What one guest may take of the store: xenstored's default quotas (tools/xenstored/domain.c, hard_quotas).

The toolstack is not bound by them.
"""

NODES = 1000  # that it owns
NODE_SIZE = 2048  # bytes of a node: header, permissions, value, names of children
PERMISSIONS = 5  # of a node
WATCHES = 128
TRANSACTIONS = 10  # at a time
TRANSACTION_NODES = 1024  # that one transaction touches
OUTSTANDING = 20  # replies it has not read; no request is taken while there are as many
MEMORY = 2_621_440  # bytes of all it owns, watches and has not read
