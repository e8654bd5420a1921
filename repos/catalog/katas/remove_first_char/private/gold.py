def remove_first_char(s):
    return s[1:]
