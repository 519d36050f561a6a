"""The networks: StyleGAN2, CLIP, identity, segmenters, the evaluation classifier."""
