def trim(s):
    return s.strip(' ')
