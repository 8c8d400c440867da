"""Networks: one file each, an `nn.Module` from images in [0, 1] to logits.

Its first two parameters are the shape of an image, (C, H, W), and the number of classes, which the
data set gives; the others are the YAML's. Normalisation, where there is any, is inside.
"""
