"""The software-defined network, pure: desired state in, kernel state and plans out."""
