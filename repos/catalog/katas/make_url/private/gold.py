def make_url(host):
    return 'https://' + host
