def split_commas(s):
    return s.split(',')
