def is_number(s):
    return s.isdigit()
