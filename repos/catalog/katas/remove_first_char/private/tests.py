def test_1(f):
    assert f('abc') == 'bc'


def test_2(f):
    assert f('x') == ''


def test_3(f):
    assert f('hello') == 'ello'


def test_4(f):
    assert f('12') == '2'
