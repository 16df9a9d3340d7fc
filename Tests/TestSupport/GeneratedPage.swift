#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A Markdown page with sections between `<!-- begin: NAME (generated ...) -->` and `<!-- end: NAME -->` that tests make from the
/// code and compare, or write where `NIBBLE_UPDATE_DOCS` is set.
public struct GeneratedPage {
  /// Whether sections are to be written, not compared.
  public static var isUpdating: Bool { getenv("NIBBLE_UPDATE_DOCS") != nil }

  private let path: String
  private var lines: [Substring]

  /// - Parameter name: a file of docs/.
  public init(_ name: String) throws {
    path = "\(Repository.path)/docs/\(name)"
    lines = try readText(path).split(separator: "\n", omittingEmptySubsequences: false)
  }

  private func range(_ name: String) -> Range<Int>? {
    guard let begin = lines.firstIndex(where: { $0.hasPrefix("<!-- begin: \(name) (generated") }),
      let end = lines.firstIndex(of: "<!-- end: \(name) -->"), begin < end
    else { return nil }
    return begin + 1..<end
  }

  /// The lines of a section, each with its end; nil if the page has none of this name.
  public func section(_ name: String) -> String? { range(name).map { lines[$0].map { $0 + "\n" }.joined() } }

  public mutating func replace(_ name: String, with text: String) {
    guard let range = range(name) else { return }
    lines.replaceSubrange(range, with: text.split(separator: "\n", omittingEmptySubsequences: false).dropLast())
  }

  public func write() throws { try writeFile(lines.joined(separator: "\n"), to: path) }
}
