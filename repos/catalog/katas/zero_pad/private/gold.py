def zero_pad(n):
    return str(n).zfill(2)
