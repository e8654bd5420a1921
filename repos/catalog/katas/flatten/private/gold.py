def flatten(lists):
    return [x for l in lists for x in l]
