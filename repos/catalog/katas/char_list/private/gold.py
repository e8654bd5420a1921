def char_list(s):
    return list(s)
