def char_at(s, i):
    return s[i]
