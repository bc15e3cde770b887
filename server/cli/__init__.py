"""The `hunyuan-custom` command. Thin: each command parses its options and calls another room."""
