"""What people decided, kept beside the slices; and a ledger made anew from them."""
