"""The domain `faces`: what is trained on faces that MobileStyleGAN-FFHQ draws, and labels that published networks give them."""
