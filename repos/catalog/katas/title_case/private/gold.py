def title_case(s):
    return s.title()
