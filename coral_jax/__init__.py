"""Text-driven local image editing with StyleGAN2 and CLIP, in JAX (CoralStyleCLIP, arXiv 2303.05031)."""
