def every_other_char(s):
    return s[::2]
