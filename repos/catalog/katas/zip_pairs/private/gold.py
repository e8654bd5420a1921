def zip_pairs(a, b):
    return list(zip(a, b))
