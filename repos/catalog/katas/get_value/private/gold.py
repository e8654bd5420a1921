def get_value(d, key):
    return d.get(key)
