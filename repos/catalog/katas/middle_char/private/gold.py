def middle_char(s):
    return s[len(s) // 2]
