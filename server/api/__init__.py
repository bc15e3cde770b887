"""The API process: the app and what its routes share. It never imports torch."""
