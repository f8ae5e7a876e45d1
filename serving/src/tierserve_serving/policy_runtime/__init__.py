"""What `ErlangPolicy` needs inside the Serve controller: metrics in, decisions out, state kept."""
