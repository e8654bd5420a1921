def test_1(f):
    assert f('a') == '(a)'


def test_2(f):
    assert f('') == '()'


def test_3(f):
    assert f('hello') == '(hello)'


def test_4(f):
    assert f('1 2') == '(1 2)'
