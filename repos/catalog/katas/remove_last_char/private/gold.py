def remove_last_char(s):
    return s[:-1]
