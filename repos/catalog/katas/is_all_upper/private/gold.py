def is_all_upper(s):
    return s == s.upper()
