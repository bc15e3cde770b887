"""What `hunyuan-custom doctor` looks at: the machine, the deployment, and how much memory clips take."""
