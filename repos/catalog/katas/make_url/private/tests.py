def test_1(f):
    assert f('a.org') == 'https://a.org'


def test_2(f):
    assert f('example.com') == 'https://example.com'


def test_3(f):
    assert f('') == 'https://'


def test_4(f):
    assert f('x') == 'https://x'
