/// Paths of this repository, found from where this source file lies.
public enum Repository {
  public static let path = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3)
    .joined(separator: "/")

  /// The folder of a model that ships.
  public static func model(_ name: String) -> String { "\(path)/Models/\(name)" }

  /// What the tests of a target read.
  public static func resources(of target: String) -> String { "\(path)/Tests/\(target)/Resources" }
}
