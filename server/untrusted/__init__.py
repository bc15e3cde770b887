"""What comes from outside: addresses that users name, downloads, and images, which a process that may die decodes."""
