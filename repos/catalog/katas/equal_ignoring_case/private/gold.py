def equal_ignoring_case(a, b):
    return a.lower() == b.lower()
