def test_1(f):
    assert f('a b c') == 'abc'


def test_2(f):
    assert f('abc') == 'abc'


def test_3(f):
    assert f(' x ') == 'x'


def test_4(f):
    assert f('') == ''


def test_5(f):
    assert f('hello big world') == 'hellobigworld'
