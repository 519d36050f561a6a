"""What measures speed and quality."""

PROMPTS = ["happy", "surprised", "blue eyes", "mohawk hairstyle", "purple hair", "beard", "lipstick", "glasses"]
