def dict_size(d):
    return len(d)
