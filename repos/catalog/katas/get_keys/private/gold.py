def get_keys(d):
    return list(d)
