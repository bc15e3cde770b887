"""No fake: the renderer that the product ships, under a name that the test servers know."""

from server.generator.child.renderer import HunyuanCustomRenderer as Renderer

__all__ = ["Renderer"]
