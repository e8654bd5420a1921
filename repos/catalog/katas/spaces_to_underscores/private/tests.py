def test_1(f):
    assert f('a b c') == 'a_b_c'


def test_2(f):
    assert f('abc') == 'abc'


def test_3(f):
    assert f(' ') == '_'


def test_4(f):
    assert f('') == ''


def test_5(f):
    assert f('my file name') == 'my_file_name'
