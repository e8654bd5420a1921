def in_parentheses(s):
    return '(' + s + ')'
