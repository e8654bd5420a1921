def test_1(f):
    assert f('ab', 3) == 'ababab'


def test_2(f):
    assert f('x', 1) == 'x'


def test_3(f):
    assert f('x', 0) == ''


def test_4(f):
    assert f('ha', 2) == 'haha'
