"""What training and evaluation compute with: networks laid out for speed, precision, memory."""
