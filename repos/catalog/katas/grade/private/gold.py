def grade(score):
    return 'pass' if score >= 50 else 'fail'
