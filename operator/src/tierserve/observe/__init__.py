"""What is: Ray Serve's REST API and the gateway agent, each value with its age."""
