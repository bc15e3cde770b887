"""What comes from outside: addresses that users name, downloads, and images, decoded in a process of their own."""
