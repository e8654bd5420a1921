def test_1(f):
    assert f('abc') == 'ab'


def test_2(f):
    assert f('x') == ''


def test_3(f):
    assert f('hello') == 'hell'


def test_4(f):
    assert f('12') == '1'
