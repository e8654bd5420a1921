def max_value(d):
    return max(d.values())
