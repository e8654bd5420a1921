def string_to_int(s):
    return int(s)
