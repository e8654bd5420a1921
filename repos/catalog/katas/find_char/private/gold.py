def find_char(s, c):
    return s.find(c)
