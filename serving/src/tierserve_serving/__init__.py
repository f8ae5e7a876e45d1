"""What runs inside a replica, inside the Serve controller and beside the gateway."""
